"""Page of HTML that holds one figure and needs no network."""

from plotly import graph_objects

from search_spaces.printable import html


def page(drawing: graph_objects.Figure, title: str, *, name: str) -> str:
    """Return an HTML page with one figure, which needs no network; `name` is the id of its element."""
    # Plotly 7 offers by default to send the data to its company.
    config = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
    plot = drawing.to_html(full_html=False, include_plotlyjs=True, div_id=name, default_height="100vh", config=config)
    return f"<!doctype html><meta charset='utf-8'><title>{html(title)}</title><style>body {{margin: 0}}</style>{plot}"
