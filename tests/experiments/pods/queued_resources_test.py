"""The script for queued resources, with a ``gcloud`` that writes down what it is asked."""

import os
import shutil
import subprocess

import pytest

from tests.experiments.training.parallel.pairs import ROOT

PODS = ROOT / "experiments" / "pods"
# The n-th ssh ends with the n-th status; a slice is asked for twice before it is there.
GCLOUD = r"""#!/usr/bin/env bash
echo "$*" >> "$LOG"
case "$*" in
    *"queued-resources describe"*)
        if [[ $(grep -c describe "$LOG") -le 2 ]]; then echo PROVISIONING; else echo ACTIVE; fi ;;
    *ssh*) exit "$(sed -n "$(grep -c ssh "$LOG")p" "$STATUS")" ;;
esac
"""


def run(folder, statuses, *options, **environment):
    """Runs the script; returns its exit status and what gcloud was asked."""
    log, status = folder / "log", folder / "status"
    status.write_text("".join(f"{number}\n" for number in statuses))
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    done = subprocess.run(
        [str(PODS / "queued_resources.sh"), *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "LOG": str(log),
            "STATUS": str(status),
            "POLL_SECONDS": "0",
            **environment,
        },
    )
    return done, log.read_text().splitlines() if log.exists() else []


GIVEN = {"IMAGE": "image", "ZONE": "zone", "NFS": "host:/share"}


def test_a_preempted_slice_is_queued_again(tmp_path):
    done, asked = run(tmp_path, [255, 0], "r50", "--seeds", "0 1", **GIVEN)
    assert done.returncode == 0, done.stderr
    words = [line.split()[3] for line in asked if "describe" not in line]
    assert words == ["create", "ssh", "delete"] * 2
    (_, ssh) = (line for line in asked if " ssh " in line)
    assert "train imagenet_resnet50 --data.data-dir" in ssh
    assert r"--resume auto --checkpoint-every 1 --grace-seconds 25 --seeds 0\ 1" in ssh
    assert all("--zone zone" in line for line in asked)


def test_wrong_options_are_not_tried_again(tmp_path):
    done, asked = run(tmp_path, [2], "r50", **GIVEN)
    assert done.returncode == 2
    assert sum("create" in line for line in asked) == 1
    assert sum("delete" in line for line in asked) == 1


def test_tries_end(tmp_path):
    done, asked = run(tmp_path, [1, 1], "r50", TRIES="2", **GIVEN)
    assert done.returncode == 1
    assert "gave up after 2 slices" in done.stderr
    assert sum("delete" in line for line in asked) == 2


@pytest.mark.parametrize("missing", GIVEN)
def test_what_is_missing_is_named(tmp_path, missing):
    done, asked = run(tmp_path, [], "r50", **{k: v for k, v in GIVEN.items() if k != missing})
    assert done.returncode != 0
    assert asked == []
    assert missing in done.stderr


def test_scripts_pass_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    scripts = sorted(PODS.glob("*.sh"))
    assert len(scripts) == 2
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
