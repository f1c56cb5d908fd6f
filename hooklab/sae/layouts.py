"""Autoencoders that others stored: files of OpenAI's release, folders of SAELens. Local files only, and no code is run.

What a file says and hooklab does not know is an error that names it: a setting that is passed over is a wrong number.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from .autoencoder import SAE

# OpenAI: a state dict in a .pt file ---------------------------------------------------------------------------------

_OPENAI = {"pre_bias", "latent_bias", "encoder.weight", "activation"}
_DECODERS = ("decoder.weight", "decoder.linear.weight")
_STATISTICS = {"stats_last_nonzero": "last_active", "latents_activation_frequency": "frequency",
               "latents_mean_square": "mean_square"}
_AFTER = {"ReLU": "relu", "Identity": "identity"}


def read_openai(path: str | Path, *, norm: str | None = None) -> SAE:
    """An autoencoder in the layout of OpenAI's release for GPT-2: one `.pt` file for a layer and a site.

    Args:
        path: The file; it is read as data (`weights_only`).
        norm: How inputs were prepared, which the files do not say. By default as in the release: those with a TopK
            were trained on inputs of mean 0 and standard deviation 1 (`"layer"`), the others on inputs as they are.

    Raises:
        ModelError: it cannot be read as data, or says what hooklab does not know.
    """
    path = Path(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} cannot be read without running code that it brings along; store it as safetensors where "
                         "you trust it") from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{path} holds a {type(found).__name__}, not a state dict")
    return openai(found, norm=norm, path=str(path))


def openai(state: Mapping[str, Any], *, norm: str | None = None, path: str = "the state dict") -> SAE:
    """The same of a state dict that is in memory; it stays as it is."""
    settings = {"activation_state_dict", *_STATISTICS, *_DECODERS}
    if missing := sorted(_OPENAI - {"activation"} - set(state)):
        raise ModelError(f"{path} has no {', '.join(missing)}")
    if unknown := sorted(str(key) for key in set(state) - _OPENAI - settings):
        raise ModelError(f"{path} has entries that hooklab does not know: {', '.join(unknown)}")
    activation = _openai_activation(state, path)
    w_enc = state["encoder.weight"].T
    tied = "decoder.linear.weight" in state
    if tied and not torch.equal(state["decoder.linear.weight"], state["encoder.weight"]):
        raise ModelError(f"{path}: the decoder is said to be the encoder's transpose, and its weights are others")
    if not tied and "decoder.weight" not in state:
        raise ModelError(f"{path} has no decoder.weight")
    w_dec = None if tied else state["decoder.weight"].T.contiguous()
    norm = norm or ("layer" if isinstance(activation, TopK) else "none")
    return SAE(w_enc.contiguous(), state["latent_bias"], w_dec, state["pre_bias"], activation, norm=norm,
               statistics={ours: state[name] for name, ours in _STATISTICS.items() if name in state})


def _openai_activation(state: Mapping[str, Any], path: str) -> Activation:
    kind, settings = state.get("activation", "ReLU"), dict(state.get("activation_state_dict", {}))
    if kind == "ReLU" and not settings:
        return ReLU()
    if kind == "TopK" and set(settings) == {"k", "postact_fn"} and settings["postact_fn"] in _AFTER:
        return TopK(int(settings["k"]), _AFTER[settings["postact_fn"]])
    raise ModelError(f"{path} has the activation {kind!r} with {settings}: hooklab knows ReLU, and TopK with k and a "
                     f"postact_fn of {' or '.join(_AFTER)}")


# SAELens: a folder with cfg.json and sae_weights.safetensors --------------------------------------------------------

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_MEANING = {"architecture", "d_in", "d_sae", "d_out", "dtype", "apply_b_dec_to_input", "normalize_activations", "k",
            "reshape_activations", "rescale_acts_by_decoder_norm", "activation_fn", "activation_fn_str",
            "activation_fn_kwargs", "finetuning_scaling_factor", "metadata"}
_READER = set("""model_name model_class_name hook_name hook_point hook_layer hook_point_layer hook_head_index
    hook_point_head_index hook_name_out hook_layer_out hook_head_index_out neuronpedia_id prepend_bos context_size
    dataset_path seqpos_slice exclude_special_tokens model_from_pretrained_kwargs sae_lens_version
    sae_lens_training_version""".split())
_TRAINING = set("""device seed verbose l1_coefficient lp_norm l1_warm_up_steps l0_coefficient l0_warm_up_steps lr lr_end
    lr_scheduler_name lr_warm_up_steps lr_decay_steps n_restart_cycles adam_beta1 adam_beta2 mse_loss_normalization
    b_dec_init_method decoder_orthogonal_init decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm
    init_encoder_as_decoder_transpose normalize_sae_decoder noise_scale scale_sparsity_penalty_by_decoder_norm
    use_ghost_grads feature_sampling_window dead_feature_window dead_feature_threshold expansion_factor
    jumprelu_bandwidth jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_tanh_scale
    pre_act_loss_coefficient aux_loss_coefficient topk_threshold_lr use_sparse_activations finetuning_tokens
    finetuning_method train_batch_size_tokens store_batch_size_prompts training_tokens n_batches_in_buffer
    eval_batch_size_prompts n_eval_batches eval_every_n_wandb_logs dataset_trust_remote_code streaming
    is_dataset_tokenized use_cached_activations cached_activations_path from_pretrained_path act_store_device autocast
    autocast_lm compile_llm llm_compilation_mode compile_sae sae_compilation_mode checkpoint_path n_checkpoints resume
    run_name log_to_wandb log_activations_store_to_wandb log_optimizer_state_to_wandb wandb_project wandb_id wandb_entity
    wandb_log_frequency model_kwargs begin_batch_token begin_sequence_token sequence_separator_token
    disable_concat_sequences tokens_per_buffer hook_eval""".split())
_KINDS = ("standard", "topk", "batchtopk", "jumprelu", "gated", "transcoder", "jumprelu_transcoder")
_NORM = {"none": "none", False: "none", None: "none", "layer_norm": "layer", "constant_norm_rescale": "length"}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def read_saelens(folder: str | Path, *, scale: float | None = None) -> SAE:
    """An autoencoder that SAELens stored: a folder with `cfg.json` and `sae_weights.safetensors`.

    Args:
        folder: The folder.
        scale: What inputs were multiplied by in training, √d_in over their mean length, where `cfg.json` says that they
            were (`expected_average_only_in`) and does not say by how much; 1 where it is folded into the weights.

    Raises:
        ModelError: a file is missing or cannot be read, or says what hooklab does not know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    try:
        cfg = json.loads((folder / CFG).read_text())
        weights = load((folder / WEIGHTS).read_bytes())
        sparsity = folder / "sparsity.safetensors"
        log_frequency = load(sparsity.read_bytes()).get("sparsity") if sparsity.is_file() else None
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be read as an autoencoder of SAELens: {error}") from error
    if not isinstance(cfg, dict):
        raise ModelError(f"{folder / CFG} is no table of settings")
    sae = saelens(cfg, weights, scale=scale, path=str(folder))
    statistics = {} if log_frequency is None else {"frequency": 10.0 ** log_frequency}
    return replace(sae, statistics=statistics)


def from_saelens(obj: Any, *, scale: float | None = None) -> SAE:
    """An autoencoder that SAELens has opened, as one of hooklab's: any object with its `cfg` and its `state_dict()`.

        sae = hl.sae.from_saelens(sae_lens.SAE.from_pretrained(release, sae_id))

    The package itself is not needed. Tensors are copied: what happens to the object later changes nothing.

    Args:
        obj: The autoencoder, or transcoder.
        scale: As for `read_saelens`.

    Raises:
        ModelError: it is no such object, or says what hooklab does not know.
    """
    told, state = getattr(obj, "cfg", None), getattr(obj, "state_dict", None)
    if told is None or not callable(state):
        raise ModelError(f"a {type(obj).__name__} is no autoencoder of SAELens: it has a cfg and a state_dict()")
    if callable(getattr(told, "to_dict", None)):
        cfg = told.to_dict()
    elif is_dataclass(told) and not isinstance(told, type):
        cfg = asdict(told)
    else:
        cfg = told if isinstance(told, Mapping) else vars(told)
    plain = {key: str(value).removeprefix("torch.") if key in ("dtype", "device") else value for key, value in cfg.items()}
    weights = {name: t.detach().clone() for name, t in state().items()}
    return saelens(plain, weights, scale=scale, path=f"the {type(obj).__name__}")


def saelens(cfg: Mapping[str, Any], weights: Mapping[str, Tensor], *, scale: float | None = None,
            path: str = "the settings") -> SAE:
    """The same of settings and tensors that are in memory; they stay as they are."""
    if unknown := sorted(set(cfg) - _MEANING - _READER - _TRAINING):
        raise ModelError(f"{path} has settings that hooklab does not know: {', '.join(unknown)}")
    t = dict(weights)
    kind = _kind(cfg, t, path)
    transcoder = kind.endswith("transcoder")
    names = ["W_enc", "b_dec", "W_dec"] + (["b_gate"] if kind == "gated" else ["b_enc"])
    if missing := [name for name in names if name not in t]:
        raise ModelError(f"{path} has no {', '.join(missing)}")
    w_enc, b_dec, w_dec, b_enc = (t.pop(name) for name in names)
    finetuned = t.pop("scaling_factor", t.pop("finetuning_scaling_factor", None))
    if finetuned is not None and not torch.equal(finetuned, torch.ones_like(finetuned)):
        if not cfg.get("finetuning_scaling_factor"):
            raise ModelError(f"{path} has a scaling_factor that cfg.json does not speak of")
        w_dec = w_dec * finetuned[:, None]
    activation = _activation(kind, cfg, t, path)
    if t:
        raise ModelError(f"{path} has tensors that hooklab does not know: {', '.join(sorted(t))}")
    if cfg.get("rescale_acts_by_decoder_norm"):
        norm = w_dec.norm(dim=1)
        w_enc, b_enc, w_dec = w_enc * norm, b_enc * norm, w_dec / norm[:, None]
    norm, factor = _prepared(cfg, scale, path)
    sae = SAE(w_enc, b_enc, w_dec, b_dec, activation, not transcoder and bool(cfg.get("apply_b_dec_to_input", True)), norm,
              factor, restore=not transcoder, about=_about(cfg))
    sizes = {"d_in": sae.d_in, "d_sae": sae.n_features, "d_out": sae.d_out}
    if wrong := [name for name, size in sizes.items() if cfg.get(name) not in (None, size)]:
        raise ModelError(f"{path}: cfg.json says {', '.join(f'{n}={cfg[n]}' for n in wrong)}, and the tensors say otherwise")
    return sae


def _kind(cfg: Mapping[str, Any], t: Mapping[str, Tensor], path: str) -> str:
    kind, function = cfg.get("architecture", "standard"), cfg.get("activation_fn", cfg.get("activation_fn_str", "relu"))
    if kind not in _KINDS:
        raise ModelError(f"{path} has the architecture {kind!r}: hooklab reads {', '.join(_KINDS)}")
    if function not in ("relu", "topk"):
        raise ModelError(f"{path} has the activation function {function!r}: hooklab reads relu and topk")
    return "topk" if function == "topk" else str(kind)


def _activation(kind: str, cfg: Mapping[str, Any], t: dict[str, Tensor], path: str) -> Activation:
    """What makes features; takes its tensors out of `t`."""
    try:
        if kind.startswith("jumprelu"):
            return JumpReLU(t.pop("log_threshold").exp() if "log_threshold" in t else t.pop("threshold"))
        if kind == "gated":
            return Gated(t.pop("r_mag"), t.pop("b_mag"))
        if kind == "batchtopk":
            return BatchTopK(float(cfg["k"]), float(t.pop("topk_threshold")))
        if kind == "topk":
            return TopK(int(cfg["k"] if "k" in cfg else (cfg.get("activation_fn_kwargs") or {})["k"]))
    except KeyError as error:
        raise ModelError(f"{path}: a {kind} autoencoder has {error}, and this one does not") from error
    return ReLU()


def _prepared(cfg: Mapping[str, Any], scale: float | None, path: str) -> tuple[str, float]:
    how = cfg.get("normalize_activations", "none")
    if how == "expected_average_only_in" or how is True:
        if scale is None:
            raise ModelError(f"{path}: inputs were multiplied by one number in training, and the file does not say by "
                             "which: give scale=√d_in / (mean length of the inputs), or scale=1 if the weights hold it")
        return "none", float(scale)
    if not isinstance(how, str | bool | None) or how not in _NORM:
        raise ModelError(f"{path} has normalize_activations={how!r}: hooklab reads {', '.join(map(str, _NORM))} and "
                         "expected_average_only_in")
    if scale is not None:
        raise ModelError(f"{path} says how inputs are prepared ({how!r}), so there is no scale to give")
    return _NORM[how], 1.0


def _about(cfg: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in cfg.items() if key in _READER} | dict(cfg.get("metadata") or {})
    return {key: value for key, value in told.items() if value is not None}
