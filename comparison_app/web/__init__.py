"""Streamlit pages; they hold no logic."""
