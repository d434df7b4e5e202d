"""Tools that notebooks import: data, checking, gradient checking and plots."""
