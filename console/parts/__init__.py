"""The pieces that pages are put together from. They know no page and make no calls."""
