"""Networks from and for elsewhere: ONNX files and torch.export programs in, NIR graphs out and in again."""

from lava_casc.interchange.nir_file import read_nir, read_nir_file, write_nir
from lava_casc.interchange.onnx_file import read_onnx
from lava_casc.interchange.program import read_program
from lava_casc.interchange.reading import import_model

__all__ = ["import_model", "read_nir", "read_nir_file", "read_onnx", "read_program", "write_nir"]
