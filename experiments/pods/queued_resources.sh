#!/usr/bin/env bash
# A TPU pod slice as a queued resource of Google Cloud, on Spot machines:
#
#     IMAGE=... ZONE=us-east5-a experiments/pods/queued_resources.sh NAME [options of train]
#
# Waits for the slice, runs the container on all its hosts, and queues again after a preemption until
# training ends. IMAGE is built by the Containerfile here; SHARED is a folder that all hosts mount
# from the file server NFS (Filestore, say). At most TRIES slices, one after the other.
set -euo pipefail
name=${1:?usage: IMAGE=... ZONE=... NFS=HOST:/PATH $0 NAME [options of train]}
shift
: "${IMAGE:?the container, built by experiments/pods/Containerfile}"
: "${ZONE:?the zone of the TPU}" "${NFS:?the file server, HOST:/PATH}"
type=${TYPE:-v5litepod-16} runtime=${RUNTIME:-v2-alpha-tpuv5-lite}
tries=${TRIES:-100} seconds=${POLL_SECONDS:-60} shared=${SHARED:-/shared}
run="$shared/runs/$name"
options=$(printf ' %q' --data.data-dir "$shared/data" --run-dir "$run" --resume auto --checkpoint-every 1 \
    --grace-seconds 25 "$@")
# --stop-timeout: how long docker waits after SIGTERM when the machine is taken away.
remote="sudo mkdir -p $shared && sudo mount -t nfs $NFS $shared && sudo docker run --rm --privileged \
--network host --stop-timeout 28 -v $shared:$shared $IMAGE train imagenet_resnet50$options"

tpu() {
    gcloud compute tpus "$@" --zone "$ZONE" --quiet
}
state() {
    tpu queued-resources describe "$name" --format "value(state.state)"
}

for ((try = 1; try <= tries; try++)); do
    tpu queued-resources create "$name" --node-id "$name" --accelerator-type "$type" \
        --runtime-version "$runtime" --spot
    until [[ $(state) == ACTIVE ]]; do
        case $(state) in
            FAILED | SUSPENDED) break ;;
        esac
        sleep "$seconds"
    done
    status=1
    if [[ $(state) == ACTIVE ]]; then
        status=0
        tpu tpu-vm ssh "$name" --worker all --command "$remote" || status=$?
    fi
    tpu queued-resources delete "$name" --force
    # 2: wrong options, which would be wrong again.
    if ((status == 0 || status == 2)); then
        exit "$status"
    fi
    echo "try $try: the slice is gone, or training failed (status $status); once more" >&2
done
echo "gave up after $tries slices" >&2
exit 1
