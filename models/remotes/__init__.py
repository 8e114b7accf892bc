"""Where weights are fetched from: one module for each kind of place, all behind `Remote`."""
