"""What every room may import: the vocabulary, configuration, exposition and process plumbing.

Only the standard library and the agent's light dependencies are allowed below this line.
"""
