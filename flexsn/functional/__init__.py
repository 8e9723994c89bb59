"""What one does to a whole network, what one trains it with, and how one reads its spikes.

Named as in other libraries: resetting a network and setting its modes, running modules over time, losses on spikes,
clusters and first spikes.
"""

from flexsn.functional.losses import kernel_dot_product, redundant_one_hot, set_threshold_margin, spike_similar_loss
from flexsn.functional.network import detach_net, reset_net, set_backend, set_step_mode
from flexsn.functional.over_time import multi_step_forward, seq_to_ann_forward
from flexsn.functional.spike_trains import first_spike_index, spike_cluster

__all__ = [
    "detach_net",
    "first_spike_index",
    "kernel_dot_product",
    "multi_step_forward",
    "redundant_one_hot",
    "reset_net",
    "seq_to_ann_forward",
    "set_backend",
    "set_step_mode",
    "set_threshold_margin",
    "spike_cluster",
    "spike_similar_loss",
]
