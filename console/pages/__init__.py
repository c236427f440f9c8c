"""The pages of the console, one module each: what a person sees and can do at one address."""
