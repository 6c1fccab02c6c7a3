# lvdm-rt on a CPU. Written and linted; never built.
#     docker build --tag lvdm-rt .
#     docker run --rm --volume "$PWD:/videos" lvdm-rt generate --frames 256 -o sky.mp4
# As a server, which asks for the token in the file:
#     docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD:/videos" lvdm-rt serve --host 0.0.0.0 --token-file token
FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
# The wheel is named by its file, and its bounds decide on the versions of what it needs.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    set -- /wheels/lvdm_rt-*.whl && pip install --no-cache-dir "$1[cpu,serve,text]"
RUN useradd --uid 1000 --create-home lvdm
USER 1000
WORKDIR /videos
EXPOSE 8000
# ONNX Runtime's wheel would otherwise keep events and look for a collector.
ENV ORT_DISABLE_TELEMETRY=1
ENTRYPOINT ["lvdm-rt"]
CMD ["doctor"]
