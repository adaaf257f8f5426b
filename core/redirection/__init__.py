"""A photograph in, the redirected one out: faces found, redirected, and put back."""
