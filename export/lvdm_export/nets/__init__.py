"""The networks of LVDM with the official parameter names."""
