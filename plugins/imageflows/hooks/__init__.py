"""How the workflows reach the services around them."""
