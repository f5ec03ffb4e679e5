"""Install heads that copy: the output half of an induction circuit, solved for instead of trained for.

MiniLM already finds previous tokens and equal tokens, and the attention guide (`finetune.pretraining.guide_loss`)
soon turns heads into pointers at the token to copy (Olsson et al. 2022, arXiv 2209.11895, describe such heads). What
gradient descent learns slowly is to carry the identity of that token to the output. It is a linear map, so it is found
by reduced-rank regression from the hidden state of a token to its embedding, and spread over several heads of the last
layer, which all take the pointer's queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.packing import PackedBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def install_copy_heads(
    model: PreTrainedModel,
    ids: torch.Tensor,
    *,
    layer: int = 5,
    pointer: int = 0,
    heads: Sequence[int] = tuple(range(8)),
    strength: float = 1.0,
) -> PreTrainedModel:
    """Turn `heads` of `layer`, in place, into copies of the head `pointer` that output the embedding they point at.

    ids: (b, t) token ids of sample text, from which the map from hidden states to embeddings is fitted. strength:
    length of the output in units of the layer's mean hidden length.
    """
    import torch

    attention = model.base_model.encoder.layer[layer].attention
    width = attention.self.attention_head_size
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[layer]
        rows = hidden.float().flatten(0, 1)
        reading, writing = token_map(rows, ids.flatten(), model.get_input_embeddings().weight, len(heads) * width)
        bias = -(rows.mean(0) @ reading)
        scale = strength * rows.norm(dim=1).mean() / ((rows @ reading + bias) @ writing).norm(dim=1).mean()
        for number, head in enumerate(heads):
            place, part = slice(head * width, (head + 1) * width), slice(number * width, (number + 1) * width)
            source = slice(pointer * width, (pointer + 1) * width)
            for projection in (attention.self.query, attention.self.key):
                projection.weight[place] = projection.weight[source].clone()
                projection.bias[place] = projection.bias[source].clone()
            attention.self.value.weight[place] = reading[:, part].T.to(model.dtype)
            attention.self.value.bias[place] = bias[part].to(model.dtype)
            attention.output.dense.weight[:, place] = (scale * writing[part].T).to(model.dtype)
    return model


def token_map(
    hidden: torch.Tensor, ids: torch.Tensor, embeddings: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R (width, rank) and W (rank, width) such that (hidden - mean) R W is near each token's embedding.

    Reduced-rank ridge regression; hidden is (n, width), ids is (n,), embeddings (vocabulary, width). Every token counts
    by the inverse root of its frequency, so that rare words, which must be copied, weigh as much as frequent ones.
    """
    import torch

    table = embeddings.float()
    directions = torch.nn.functional.normalize(table - table.mean(0), dim=1)
    weight = torch.bincount(ids, minlength=len(table)).float()[ids].rsqrt()[:, None]
    centred = (hidden - hidden.mean(0)) * weight
    targets = directions[ids] * weight
    gram = centred.T @ centred
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    full = torch.linalg.solve(gram + ridge, centred.T @ targets)
    _, _, right = torch.linalg.svd(centred @ full, full_matrices=False)
    return full @ right[:rank].T, right[:rank]


@dataclass(frozen=True)
class IdentityLoss:
    """Keep every token's identity readable in the layers that pointers read from.

    Without it, training at the rates that a short run needs wipes identity out of the upper layers (nearest embedding
    right for 11 % of tokens at layer 4, against 58 % in MiniLM itself), and then there is nothing to copy.
    maps: for each layer the centre (hidden,) of its states and a fixed map (hidden, hidden) to embedding directions,
    fitted before training. share: of positions that are looked at in a step.
    """

    maps: dict[int, tuple[torch.Tensor, torch.Tensor]]
    weight: float = 0.3
    share: float = 0.15
    sharpness: float = 12.0

    def __call__(
        self, model: PreTrainedModel, hidden_states: Sequence[torch.Tensor], packed: PackedBatch
    ) -> torch.Tensor:
        """Return the mean cross entropy of naming the tokens from their own hidden states, times `weight`."""
        import torch

        table = model.get_input_embeddings().weight.detach()
        table = torch.nn.functional.normalize(table.float() - table.float().mean(0), dim=1).to(model.dtype)
        drawn = torch.rand(packed.input_ids.shape).to(packed.input_ids.device)
        chosen = (drawn < self.share) & (packed.segments > 0)
        labels = packed.input_ids[chosen]
        losses = []
        for layer, (centre, to_embedding) in self.maps.items():
            states = hidden_states[layer][chosen] - centre.to(table)
            logits = (states @ to_embedding.to(table)) @ table.T
            losses.append(torch.nn.functional.cross_entropy(self.sharpness * logits.float(), labels))
        return self.weight * torch.stack(losses).mean()


def identity_loss(model: PreTrainedModel, ids: torch.Tensor, layers: Sequence[int] = (3, 4, 5)) -> IdentityLoss:
    """Fit the maps of an `IdentityLoss` on sample text, ids of shape (b, t)."""
    import torch

    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        table = model.get_input_embeddings().weight
        maps = {}
        for layer in layers:
            rows = hidden[layer].float().flatten(0, 1)
            reading, writing = token_map(rows, ids.flatten(), table, rows.shape[1])
            to_embedding = reading @ writing
            length = ((rows - rows.mean(0)) @ to_embedding).norm(dim=1).mean()
            maps[layer] = (rows.mean(0), to_embedding / length)
    return IdentityLoss(maps)
