"""From transactions to the text that people and programs read. Pure, but for its process."""
