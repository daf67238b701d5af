"""The pods of the manifest as processes here: rolled, killed and misconfigured under load."""
