"""The training engine: it is handed a network, a loss, images, the fields of a trial and its seed."""
