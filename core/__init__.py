"""Between command and network: settings, what they mean, training, evaluation, reports."""
