"""Networks from and for elsewhere: ONNX files and torch.export programs in, NIR graphs out and in again."""

from lava_casc.interchange.nir_file import read_nir, read_nir_file, write_nir
from lava_casc.interchange.reading import import_model

__all__ = ["import_model", "read_nir", "read_nir_file", "write_nir"]
