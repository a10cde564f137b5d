"""``--model coronet``: the plug-in's door into this code base.

A checkout of upstream gets a file like this one; all else is in ``coronet_plugin``.
"""

from coronet_plugin.model import coronet_model

from .base_model import BaseModel

CoronetModel = coronet_model(BaseModel)
