"""What `prepare_test.py` runs in processes of their own, with tensorflow and without."""

PREPARE = """
import os, signal, sys
from pathlib import Path
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import shard_utils
from tensorflow_datasets.image_classification import mnist
from experiments.data.prepare import __main__ as prepare

mnist._TRAIN_EXAMPLES, mnist._TEST_EXAMPLES = 60, 20  # As many as the test's files have.
many_files, few_files = 4_000, shard_utils.ShardConfig.min_shard_size
shard_utils.ShardConfig.min_shard_size = many_files
calls = []

def stop(file):
    # Asks this process to end, in the third of the files: each is followed by a note.
    calls.append(file)
    if len(calls) % 5 == 0:
        signal.raise_signal(signal.SIGTERM)

sys.stderr = sys.stdout
root, names = Path(sys.argv[1]), sys.argv[2:]
builder = tfds.builder("imagenet2012", data_dir=root / "tfds", file_format="array_record")
manual = root / "downloads" / "manual"
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
partial = root / "imagenet2012" / "5.1.0.partial"
prepare.main(["imagenet2012", "--data_dir", str(root / "whole"), "--manual_dir", str(manual)])
fsync, os.fsync = os.fsync, stop
for _ in range(2):
    status = prepare.main(["imagenet2012", "--data_dir", str(root)])
    print("interrupted", status, [p.name.split("-")[0] for p in sorted(partial.iterdir())])
os.fsync = fsync
for name in names:
    shard_utils.ShardConfig.min_shard_size = many_files if name == "imagenet2012" else few_files
    status = prepare.main([name, "--data_dir", str(root)])
    print("status", status, flush=True)
"""
# What the test counts on: it reads, and tensorflow is nowhere.
READ = """
import sys
from experiments.data import DataConfig, load_dataset
for name in ("mnist", "cifar10", "cifar100", "imagenet2012"):
    dataset = load_dataset(DataConfig(dataset=name, data_dir=sys.argv[1]))
    pipeline = dataset.pipeline(seed=0, batch_size=4)
    batch = next(pipeline.batches(0))
    print(name, batch["image"].shape, next(dataset.test_batches(4))["image"].shape)
    pipeline.close()
print("tensorflow:", sorted(m for m in sys.modules if m.split(".")[0] == "tensorflow"))
"""
