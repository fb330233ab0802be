"""Tables, figures and report pages for the paper, the studies and the audit."""
