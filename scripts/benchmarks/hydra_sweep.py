"""The same training under Hydra's own sweeper and launcher, which ours is measured against.

python -m benchmarks.hydra_sweep -m seed=1,2,3 [hydra/launcher=joblib hydra.launcher.n_jobs=2]
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from bigmodel.cli.launch.run_folder import register_resolver
from bigmodel.cli.train import config_dir

register_resolver()  # joblib's processes import this module too


def task(config: DictConfig) -> float | None:
    """Trains one job, its console's lines included, as a Hydra application does."""
    from bigmodel.cli.job import import_everything

    import_everything()
    from bigmodel.cli.sweep.work import train

    return train(config).value


if __name__ == "__main__":
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(task)()
