"""A trained model behind the OpenAI API."""
