"""What tables, figures and report pages share: the paper's, the studies', the audit's."""
