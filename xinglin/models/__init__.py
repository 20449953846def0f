"""Models: folders in and out, adapters, packing, templates."""

import logging

# Said whenever peft is imported, of a CPU kernel that would come from the network: a user can do nothing about it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
