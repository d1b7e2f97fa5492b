#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=1-{shards}
#SBATCH --nodes=1 --ntasks=1
#SBATCH --gres=gpu:{gpus}
#SBATCH --requeue --open-mode=append
#SBATCH --output={name}-%A-%a.log
#SBATCH --signal=B:TERM@120
# One night is one execution. To start elements of it again, the same night's name:
#   EXECUTION=slurm-1234 sbatch --array=2,5 THIS_FILE
EXECUTION="${EXECUTION:-slurm-$SLURM_ARRAY_JOB_ID}"
exec vramsweep run {file} --resume{lanes} --output-dir {dir} \
  --shard "$SLURM_ARRAY_TASK_ID/{shards}" --execution "$EXECUTION"
