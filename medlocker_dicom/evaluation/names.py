"""The studies' names and what each shows, for a command's help: loads nothing."""

from types import MappingProxyType

HELP = MappingProxyType(
    {
        "asr": "How often the models that the search asks are turned (the paper's table 1).",
        "transfer": "How often models are turned that the search did not ask (table 2).",
        "wsm": "Success by where the logo may lie, with and without retinopathy (table 3).",
        "ablation": "Success of the paper's search, one parameter changed at a time (figure 4).",
        "redteam": "What is left of the lock after attacks that would undo it.",
        "visibility": "How much of the retina and of its lesions the logo hides.",
    }
)
"""A line for each study."""
