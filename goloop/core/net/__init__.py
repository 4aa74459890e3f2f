"""The connections of goloop.net."""
