#!/usr/bin/env bash
# Train, export and measure the built-in model: scripts/train_sky_tiny.sh [FOLDER]
# About four hours on one CPU core. Run it again after an interruption and it goes on.
set -euo pipefail
runs=${1:-runs/sky-tiny}
. "$(dirname "$0")/recipe.sh"

train autoencoder sky-tiny-first-autoencoder "$runs/autoencoder-first"
train autoencoder sky-tiny-autoencoder "$runs/autoencoder" --start-from "$runs/autoencoder-first"
denoiser=(--autoencoder "$runs/autoencoder")
train diffusion sky-tiny-first "$runs/denoiser-first" "${denoiser[@]}"
train diffusion sky-tiny-second "$runs/denoiser-second" "${denoiser[@]}" --start-from "$runs/denoiser-first"
train diffusion sky-tiny "$runs/denoiser" "${denoiser[@]}" --start-from "$runs/denoiser-second"

train distill sky-tiny-distill "$runs/distill" "${denoiser[@]}" --start-from "$runs/denoiser"

model=("$runs/denoiser/model/model.json" "$runs/denoiser/model/model.safetensors")
lvdm-export build-engines --predict "${model[@]}" --interpolate "${model[@]}" --short "${model[@]}" \
    --distilled "$runs"/distill/model/model.{json,safetensors} \
    --autoencoder "$runs/autoencoder/model/model.safetensors" --weights fp16 \
    --sampler dpmpp_2m --steps 8 --refine 2 --guidance 0 --noise-level -1 \
    --name sky-tiny --out "$runs/bundle" --force
lvdm-tools eval "$runs/bundle" --markdown "$runs/quality.md" --force --record
