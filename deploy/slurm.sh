#!/usr/bin/env bash
# A sweep on Slurm: one Ray node per Slurm node, the driver on the first. Submit with
#   sbatch --nodes=4 deploy/slurm.sh +sweep=fragmentation sweep.reps.max=64 store.root=$SCRATCH/results
# Ninety seconds before the time is over the driver, and nothing else, gets SIGTERM: it commits what is in work
# (cluster.grace_s). So does `scancel --batch --signal=TERM JOB`. Submit the same line again to go on. All that the nodes
# share is the results folder; the environment must be there on each.
#SBATCH --job-name=kmemexp
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@90
set -euo pipefail

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')}
export RAY_ADDRESS
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
RAY_ADDRESS="$(getent ahostsv4 "$first" | awk 'NR == 1 {print $1}'):6379"
cpus=${SLURM_CPUS_ON_NODE:-1}

srun --overlap --nodes=1 --ntasks=1 --nodelist="$first" ray start --head --port=6379 --num-cpus="$cpus" --block &
for _ in {1..60}; do
  ray health-check --address "$RAY_ADDRESS" 2>/dev/null && break
  sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then # the driver does not wait for them: its window follows the cluster
  srun --overlap --nodes="$others" --ntasks="$others" --exclude="$first" \
    ray start --address "$RAY_ADDRESS" --num-cpus="$cpus" --block &
fi

# Not a step of srun's, which would end Ray with it.
python -m kmemexp cluster=auto progress=false "$@" &
driver=$!
trap 'kill -TERM "$driver"' TERM
code=0
wait "$driver" || code=$?
if kill -0 "$driver" 2>/dev/null; then # a signal has ended the waiting, not the driver
  code=0
  wait "$driver" || code=$?
fi
exit "$code"
