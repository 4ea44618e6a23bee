"""What the generator chooses from: names, shapes, optimizers and hyperparameters."""

TOPS = ("enc", "dec", "head", "emb", "aux")
MIDDLES = ("layers", "attn", "mlp", "norm")
NAMES = ("weight", "bias", "scale", "mean", "w", "b")
SHAPES = (
    (), (1,), (7,), (64,), (511,), (512,), (513,), (1000,),
    (3, 4), (4, 3), (8, 8), (16, 33), (33, 16), (1, 5), (5, 1),
    (2, 3, 4), (4, 3, 2), (1, 1, 3),
)  # fmt: skip
LARGE = ((65535,), (65536,), (65537,), (256, 257), (257, 256), (41, 40, 40))
TAGS = ("Dense", "LayerNorm", "Chain")
RULES = (
    "sgd(lr=0.1)",
    "sgd(lr=0.05, momentum=0.9)",
    "sgd(lr=0.05, momentum=0.5, dampening=0.25)",
    "sgd(lr=0.02, momentum=0.9, weight_decay=0.01, nesterov=true)",
    "adam(lr=0.01)",
    "adam(lr=0.02, weight_decay=0.1)",
    "adam(lr=0.01, beta1=0.5, beta2=0.9, amsgrad=true)",
    "adamw(lr=0.01, weight_decay=0.1)",
    "adamw(lr=0.03, amsgrad=true)",
    "sgd(lr=1, momentum=0.5) | adam(lr=0.01)",
    "sgd(lr=0.5, momentum=0.5) | sgd(lr=0.1, momentum=0.9)",
    "adam(lr=1) | adamw(lr=0.1, weight_decay=0.2) | sgd(lr=0.1, weight_decay=0.1)",
)
CLIPS = (
    "clip_value(0.5) | sgd(lr=0.1)",
    "clip_norm(2) | sgd(lr=0.1, momentum=0.9)",
    "clip_norm(max=0.5, eps=0) | clip_value(0.01) | adamw(lr=0.01)",
    "clip_group_norm(3) | adam(lr=0.02)",
    "clip_global_norm(5) | sgd(lr=0.05, momentum=0.9)",
    "clip_global_norm(1) | adamw(lr=0.01)",
)
ADJUSTMENTS = (
    {"lr": "0.03"}, {"lr": "0.2"}, {"weight_decay": "0.05"}, {"momentum": "0.8"}, {"momentum": "0"}, {"beta1": "0.7"},
    {"max": "0.7"}, {"0.lr": "0.5"}, {"1.lr": "0.02"}, {"adam.lr": "0.05"}, {"momentum": "0.6", "nesterov": "true"},
    {"amsgrad": "true"}, {"nosuch": "1"}, {"lr": "-1"},
)  # fmt: skip
BACK = (1, 1, 1, 2, 5, 30, 50, 63, 63, 66)
GROUPS = ("default", "head", "slow", "fast")
