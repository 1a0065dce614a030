"""Programs of test models with the numbers of their model in the manifest, as those of families have them."""

from dataclasses import replace

from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from models.config import TransformerConfig
from models.kv import KVFormat


def of_model(program: Program, config: TransformerConfig, kv: KVFormat = "fp16") -> Program:
    """The program with the numbers of its model in its manifest."""
    about = ModelIdentity(name=config.name, config=config.to_fields(), kv=kv)
    return replace(program, manifest=replace(program.manifest, model=about))
