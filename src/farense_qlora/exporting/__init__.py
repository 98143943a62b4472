"""Take a trained adapter elsewhere: formats, their verification in the tools that read them, cards."""
