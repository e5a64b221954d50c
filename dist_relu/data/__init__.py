"""Reading and making data sets, and changing their samples at random."""

from dist_relu.data.adding import adding
from dist_relu.data.archives import read_numpy
from dist_relu.data.augment import Augment
from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.frames import from_frame
from dist_relu.data.mapped import Hdf5Dataset, NpyFile
from dist_relu.data.rows import Rows
from dist_relu.data.samples import load_samples
from dist_relu.data.sources import load
from dist_relu.data.splitting import split
from dist_relu.data.tables import TableFiles

__all__ = [
    "Augment",
    "Dataset",
    "Hdf5Dataset",
    "NpyFile",
    "Rows",
    "Split",
    "TableFiles",
    "adding",
    "from_frame",
    "load",
    "load_samples",
    "read_numpy",
    "split",
]
