"""Section models, row e: chat templates beside jinja2."""

import jinja_oracle
import test_chat_templates
import test_hub_templates
from spine import Row


def templates(_):
    """Every conversation of the golden tests on every template: the share that jinja2 writes, or refuses, too."""
    sources = [path.read_text() for path in test_hub_templates.TEMPLATES]
    sources += [(test_chat_templates.FOLDER / name).read_text() for name in test_chat_templates.TEMPLATES]
    cases = equal = 0
    with jinja_oracle.Engine() as engine:
        for source in sources:
            for request in test_hub_templates.requests(source):
                cases += 1
                try:
                    test_hub_templates.compare(engine, request)
                    equal += 1
                except AssertionError:
                    pass
    yield Row(f"e templates: {len(sources)} templates, equal to jinja2", f"{equal} of {cases}", "-", None,
              "100 % of >= 300", equal == cases >= 300)
