"""Networks of other libraries behind the contract: diffusers, neuraloperator, timm.

Hooks serve ``guide`` at the inputs of their blocks and ``low_rank`` at their convolutions and
linear layers, so that stage II works on them unchanged. A library is an extra of its own; a module
here is imported when its network is built.
"""
