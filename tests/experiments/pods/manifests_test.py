"""SkyPilot's task, GKE's JobSet and the container file: read by what will read them."""

import json
import math
import os
import re
import subprocess
import sys
import tomllib

import pytest
import tyro
import yaml

from experiments.config.experiment import TrainConfig
from experiments.configs.choose import choose
from tests.experiments.training.parallel.pairs import ROOT

PODS = ROOT / "experiments" / "pods"
SKYPILOT, KUBEFLOW = "skypilot==0.14.1", "kubeflow-trainer-api==2.3.0"
JOBSET = yaml.safe_load((PODS / "jobset.yaml").read_text())
SKY = yaml.safe_load((PODS / "skypilot.yaml").read_text())
# Chips a host, by what GKE calls the kinds of TPU slices.
GKE_TPUS = {"tpu-v5-lite-podslice": 4, "tpu-v5p-slice": 4, "tpu-v6e-slice": 4}
# Cloud TPU's types: of v5p the number counts cores, of the others chips.
TYPES = {f"v{v}-{n}" for v in ("5litepod", "6e") for n in (1, 4, 8, 16, 32, 64, 128, 256)}
TYPES |= {f"v5p-{2**k}" for k in range(3, 11)}
READ = """
import json, sys, yaml
import sky
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet as JobSet
from sky import catalog

def refusal(config):
    try:
        sky.Task.from_yaml_config(config)
    except Exception as error:
        return str(error)

sky_file, jobset_file = sys.argv[1:]
task = sky.Task.from_yaml(sky_file)
config = yaml.safe_load(open(sky_file))
(resources,) = task.resources
jobset = yaml.safe_load(open(jobset_file))
read = JobSet.from_dict(jobset).to_dict()
jobset["spec"]["failurePolicies"] = {}
print(json.dumps({
    "name": task.name,
    "accelerators": list(resources.accelerators),
    "spot": resources.use_spot,
    "mounts": {k: v.source for k, v in task.storage_mounts.items()},
    "misspelt": refusal(config | {"setups": "true"}),
    "tpus": catalog.get_tpus(),
    "jobset": read,
    "misspelt is lost": JobSet.from_dict(jobset).to_dict() == read,
}))
"""


def options_of(words: list[str]) -> TrainConfig:
    """The configuration that ``train`` reads from the words behind it."""
    chosen = choose(words)
    return tyro.cli(TrainConfig, args=chosen.arguments, default=chosen.config)


def run_words() -> list[str]:
    """The words of SkyPilot's command, behind ``train``."""
    words = SKY["run"].replace("\\\n", " ").split()
    return words[words.index("train") + 1 :]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """What both libraries read, in an environment and a home of their own."""
    folder = tmp_path_factory.mktemp("pods")
    python = folder / "environment" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made = [
        [sys.executable, "-m", "venv", str(folder / "environment")],
        [*pip, SKYPILOT, KUBEFLOW],
    ]
    for command in made:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=400)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{SKYPILOT} cannot be installed here: {error}")
        if done.returncode:
            pytest.skip(f"{SKYPILOT} cannot be installed here: {done.stderr.strip()[-300:]}")
    home = folder / "home"
    home.mkdir()
    files = [str(PODS / name) for name in ("skypilot.yaml", "jobset.yaml")]
    done = subprocess.run(
        [str(python), "-c", READ, *files],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # Installs both.
def test_skypilot_reads_its_task(read):
    assert read["name"] == SKY["name"]
    assert read["spot"] is True
    assert read["mounts"] == {"/shared": "gs://YOUR-BUCKET"}
    assert "setups" in read["misspelt"]
    # It takes any name of an accelerator.
    assert set(read["accelerators"]) <= set(read["tpus"])


@pytest.mark.slow
def test_kubeflow_reads_the_jobset(read):
    assert read["jobset"] == JOBSET
    assert read["misspelt is lost"]


def test_accelerators_are_known():
    assert SKY["resources"]["accelerators"].removeprefix("tpu-") in TYPES
    script = (PODS / "queued_resources.sh").read_text()
    (kind,) = re.findall(r"\$\{TYPE:-(\S+?)\}", script)
    assert kind in TYPES


def test_pods_of_the_jobset_fill_its_slice():
    (job,) = JOBSET["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    labels = pod["nodeSelector"]
    chips = GKE_TPUS[labels["cloud.google.com/gke-tpu-accelerator"]]
    slice_ = math.prod(map(int, labels["cloud.google.com/gke-tpu-topology"].split("x")))
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] == str(chips)
    assert spec["parallelism"] == spec["completions"] == slice_ // chips
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_commands_are_options_of_train():
    """And time to save is less than the scheduler gives."""
    pod = JOBSET["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][0] == "train"
    config = options_of(container["args"][1:])
    assert config.grace_seconds < pod["terminationGracePeriodSeconds"]
    for each in (config, options_of(run_words())):
        assert (each.resume, each.checkpoint_every) == ("auto", 1)
        assert str(each.run_dir).startswith("/shared/")
        assert each.optim.batch_size == 4096


def test_container_file_names_what_exists():
    text = (PODS / "Containerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (group,) = re.findall(r"--group (\w+)", text)
    assert group in project["dependency-groups"]
    assert (
        re.findall(r"^ARG EXTRA=(\w+)$", text, re.MULTILINE)[0]
        in (project["project"]["optional-dependencies"])
    )
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1])
