# Shared by the recipes of the built-in models: a part of a training, which goes on where it stopped.
export OMP_NUM_THREADS=1 # one thread is as fast as two on networks this small

train() { # KIND CONFIG RUN [OPTION…]
    local kind=$1 config=$2 run=$3
    shift 3
    local resume=()
    if [ -e "$run/config.json" ]; then resume=(--resume); fi # a finished run is left as it is
    lvdm-tools train "$kind" --config "$config" --data synth --out "$run" "$@" "${resume[@]}"
}
