"""Writes matching.json: which layers PEFT chooses, and with which rank and alpha, for a table of configurations.

usage: make_matching.py > matching.json
needs: torch peft
"""
import json

import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(4, 4))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(self, name, nn.Linear(4, 4))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()
        self.mlp = Mlp()


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer() for _ in range(12)])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Body()
        self.lm_head = nn.Linear(4, 8)

    def forward(self, x):
        return self.lm_head(x)


CASES = [
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules=["self_attn.q_proj", "model.layers.3.mlp.up_proj"]),
    dict(target_modules=["proj"]),
    dict(target_modules=["q_proj"], layers_to_transform=[1, 11]),
    dict(target_modules=["q_proj"], layers_to_transform=1),
    dict(target_modules=["q_proj"], layers_to_transform=[0], layers_pattern="layers"),
    dict(target_modules=["q_proj"], layers_to_transform=[0], layers_pattern=["h", "layers"]),
    dict(target_modules=["q_proj"], layers_to_transform=[0], layers_pattern="blocks"),
    dict(target_modules=["model.layers.3.mlp.up_proj", "q_proj"], layers_to_transform=[0]),
    dict(target_modules=["lm_head", "down_proj"]),
    dict(target_modules=r".*\.(q|v)_proj"),
    dict(target_modules=r"q_proj"),
    dict(target_modules=r"model\.layers\.\d\.self_attn\.k_proj"),
    dict(target_modules=r".*layers\.(?:[5-7])\..*(gate|up)_proj$"),
    dict(target_modules=["q_proj", "k_proj"], exclude_modules=["k_proj"]),
    dict(target_modules=["q_proj", "k_proj"], exclude_modules=["layers.2.self_attn.q_proj"]),
    dict(target_modules=["q_proj", "k_proj"], exclude_modules=r".*\.layers\.1.?\..*"),
    dict(target_modules=["q_proj", "lm_head"], modules_to_save=["lm_head"]),
    dict(target_modules=["q_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2}),
    dict(target_modules=["q_proj", "up_proj"], rank_pattern={"q_proj": 3, "layers.0.self_attn.q_proj": 5}),
    dict(target_modules=["q_proj", "up_proj"], rank_pattern={"layers.0.self_attn.q_proj": 5, "q_proj": 3}),
    dict(target_modules=["q_proj"], rank_pattern={r"layers\.1\d\..*": 2, "^model.layers.2.self_attn.q_proj": 7}),
    dict(target_modules=["q_proj"], rank_pattern={"layers.1..*": 2, "proj": 6, "_proj": 9}),
    dict(target_modules=["q_proj", "v_proj"], alpha_pattern={"v_proj": 3, "layers.4.self_attn.q_proj": 32}),
    dict(target_modules=["q_proj", "v_proj"], use_rslora=True, rank_pattern={"v_proj": 9}, lora_alpha=6),
    dict(target_modules=["q_proj", "k_proj"], rank_pattern={"(q|k)_proj": 4, "k_proj": 2}),
    dict(target_modules=["q_proj"], rank_pattern={"self_attn": 4, "self_attn.*": 5, ".*": 6}),
]


def outcome(case):
    try:
        model = get_peft_model(Model(), LoraConfig(**{"r": 8, "lora_alpha": 16, **case}))
    except ValueError:
        return None
    chosen = {}
    for path, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            chosen[path] = [module.r["default"], module.lora_alpha["default"], module.scaling["default"]]
    return chosen


torch.manual_seed(0)
sites = [name for name, module in Model().named_modules() if isinstance(module, nn.Linear)]
table = [{"config": {"peft_type": "LORA", "r": 8, "lora_alpha": 16, **case}, "chosen": outcome(case)} for case in CASES]
rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in table)
print(f'{{"sites":{json.dumps(sites)},\n"cases":[\n{rows}\n]}}')
