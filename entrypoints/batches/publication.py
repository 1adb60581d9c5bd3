"""What a host leaves: the images of its workers, with their index."""

import shutil
from collections.abc import Sequence

from entrypoints.batches.inputs import reference_of, samples_of, settings_of
from entrypoints.batches.kept import kept_file, kept_folder, link_or_copy
from entrypoints.batches.worker import Worker
from entrypoints.runtime.folders import replace_folder
from orchestrator.contract.batch import batches_of, share_of
from orchestrator.contract.batch_result import IMAGES_FOLDER, DrawnImage, HostIndex
from orchestrator.contract.digest import hash_file
from orchestrator.contract.environment import Environment, Hosts
from orchestrator.contract.events import Item, emit


def publish(
    environment: Environment,
    hosts: Hosts,
    workers: Sequence[Worker],
) -> None:
    """Leave the images of this host's workers, with their index, in a folder that is moved into place whole."""
    import torch

    from entrypoints.runtime.machine import library_versions

    every = samples_of(environment)
    batches = batches_of(every.samples, gpu=torch.cuda.is_available())
    folder = kept_folder(environment)
    draft = environment.model.with_name(".model.draft")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / IMAGES_FOLDER).mkdir(parents=True)
    images = []
    for worker in workers:
        for batch in share_of(batches, worker.number, worker.workers):
            for sample in batch:
                path = draft / sample.file
                link_or_copy(kept_file(folder, sample), path)
                image = DrawnImage(**sample.model_dump(), digest=hash_file(path))
                images.append(image)
    settings = settings_of(environment)
    index = HostIndex(
        host=hosts.number,
        hosts=len(hosts.hosts),
        total=len(every.samples),
        samples_sha256=every.sha256,
        base_model=reference_of(environment, settings),
        libraries=library_versions(),
        images=tuple(images),
    )
    index.write(draft)
    if hosts.number == 0:  # the last images may be those of other workers than the one that has told of its own
        emit(Item(done=len(images), of=len(images)))
    replace_folder(draft, environment.model, index.file)
