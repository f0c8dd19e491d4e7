"""How the agent reads LLM engines: page parser, mapping tables, bounded HTTP, streaming probe."""
