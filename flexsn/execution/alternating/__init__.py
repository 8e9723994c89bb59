"""Steps with products: a kernel per stage, torch's products between them."""
