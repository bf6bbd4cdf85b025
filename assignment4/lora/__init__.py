"""LoRA and its relatives for any built Keras model; see README.md of this assignment."""

from assignment4.lora.model import LoRA
from assignment4.lora.training import AdapterCheckpoint, lora_plus, lora_plus_rates

__all__ = ["AdapterCheckpoint", "LoRA", "lora_plus", "lora_plus_rates"]
