#!/usr/bin/env bash
# Train, export and measure the built-in model that reads text: scripts/train_sky.sh [FOLDER]
# Two hours on one CPU core and more. Run it again after an interruption and it goes on.
set -euo pipefail
runs=${1:-runs/sky}
. "$(dirname "$0")/recipe.sh"

train autoencoder sky-128-first-autoencoder "$runs/autoencoder-first"
train autoencoder sky-128-second-autoencoder "$runs/autoencoder-second" --start-from "$runs/autoencoder-first"
train autoencoder sky-128-third-autoencoder "$runs/autoencoder-third" --start-from "$runs/autoencoder-second"
train autoencoder sky-128-autoencoder "$runs/autoencoder" --start-from "$runs/autoencoder-third"
train diffusion sky-128 "$runs/denoiser" --autoencoder "$runs/autoencoder"

model=("$runs/denoiser/model/model.json" "$runs/denoiser/model/model.safetensors")
lvdm-export build-engines --predict "${model[@]}" --interpolate "${model[@]}" --short "${model[@]}" \
    --autoencoder "$runs/autoencoder/model/model.safetensors" --weights fp16 \
    --sampler dpmpp_2m --steps 8 --refine 2 --guidance 0 --text-guidance 0 --noise-level -1 \
    --overlap 2 --name sky --out "$runs/bundle" --force
lvdm-tools eval "$runs/bundle" --markdown "$runs/quality.md" --force --record
