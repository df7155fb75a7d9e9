#!/usr/bin/env bash
# A sweep on Slurm: one Ray node per Slurm node, the driver on the first. Submit with
#   sbatch --nodes=4 deploy/slurm.sh +sweep=fragmentation sweep.reps.max=64 store.root=$SCRATCH/results
# Slurm sends SIGTERM before it kills: the driver then commits what is in work (cluster.grace_s). Submit the same line
# again to go on. Everything that the nodes share is the results folder; the environment must be there on each.
#SBATCH --job-name=kmemexp
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')}
export RAY_ADDRESS
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
RAY_ADDRESS="$(getent ahostsv4 "$first" | awk 'NR == 1 {print $1}'):6379"

# Ray starts on every node; the command runs on the first one, when all have joined, and Ray ends with it.
srun --kill-on-bad-exit=0 ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "${SLURM_CPUS_ON_NODE:-1}" -- python -m kmemexp cluster=auto progress=false "$@" &
trap 'kill -TERM $!' TERM
wait $! || wait $!
