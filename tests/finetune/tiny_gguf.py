"""A tiny Llama whose tokenizer llama.cpp's converter knows, and a stand-in for the converter where it is not there."""

from __future__ import annotations

from pathlib import Path

from tests.finetune.tiny import TEXTS

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'system' %}{{ '<<SYS>>' + m['content'] }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
STAND_IN = '''
"""Takes the converter's arguments and writes a GGUF of the token embeddings alone; it stands for llama.cpp's."""
import json, sys
from pathlib import Path
from gguf import GGUFWriter
from safetensors.numpy import load_file

arguments = sys.argv[1:]
model, out = Path(arguments[0]), arguments[arguments.index("--outfile") + 1]
assert arguments[arguments.index("--outtype") + 1] == "f32", arguments
if (model / "refuse").exists():
    sys.exit("ERROR:hf-to-gguf:Model OddForCausalLM is not supported")
if (model / "huge").exists():
    with open(out, "wb") as file:
        file.truncate(2**43)
    sys.exit()
weights = load_file(model / "model.safetensors")
writer = GGUFWriter(out, "llama")
scale = 2.0 if (model / "wrong").exists() else 1.0
writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].astype("float32") * scale)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
'''


def save_llama_for_gguf(folder: Path) -> Path:
    """Save a two-layer Llama of width 64 with a byte-fallback BPE of 400 tokens, as Llama 2 has one."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *[f"<0x{number:02X}>" for number in range(256)]]
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>",
        model_max_length=128, chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
