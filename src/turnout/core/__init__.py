"""The words of Turnout: tensors, messages, signature, servable, errors. numpy and the standard library only."""
