"""Pictures of spiking neurons: membrane traces, rasters, heat maps, bars, and a one-page report.

Every function returns the matplotlib figure, so ``figure.savefig("v.png")`` and notebooks both work. Arrays
may be NumPy arrays or tensors of any dtype on any device. Needs matplotlib: ``pip install "flexsn[plot]"``.
"""

from flexsn.plot.figures import plot_1d_spikes, plot_2d_bar_in_3d, plot_2d_heatmap, plot_one_neuron_v_s
from flexsn.plot.report import neuron_report

__all__ = ["neuron_report", "plot_1d_spikes", "plot_2d_bar_in_3d", "plot_2d_heatmap", "plot_one_neuron_v_s"]
