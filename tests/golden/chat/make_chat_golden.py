"""Writes the expected renderings in this folder: Jinja templates of each family, rendered by transformers.

    python3 make_chat_golden.py FOLDER_WITH_A_TOKENIZER

The folder's tokenizer only lends apply_chat_template its machinery; bos and eos are set per family below.
"""
import json
import pathlib
import sys

from transformers import AutoTokenizer

ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
).replace("m[", "message[")

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def chatml(default_system=None, bos=False):
    text = "{{ bos_token }}" if bos else ""
    text += "{% for message in messages %}"
    if default_system:
        text += ("{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n" + default_system
                 + "<|im_end|>\n' }}{% endif %}")
    text += "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    return text + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


# The same in the spelling with dots, double quotes and white-space control, with the system block written separately.
CHATML_DOTTED = '''{%- if messages[0].role == "system" %}
    {{- "<|im_start|>system\\n" + messages[0].content + "<|im_end|>\\n" }}
{%- else %}
    {{- "<|im_start|>system\\nYou are a careful clerk, and don't guess.<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == "system" and loop.first) %}
        {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>" + "\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}'''

QWEN3 = '''{%- set ns = namespace(searching=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role != "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- else %}
        {%- set content = message.content %}
        {%- set thoughts = '' %}
        {%- if '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or thoughts) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}'''

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + ALTERNATE +
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")

LLAMA3_LINE = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>'"
LLAMA3_END = "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
LLAMA3 = ("{% for message in messages %}{% set line = " + LLAMA3_LINE + " %}{% if loop.index0 == 0 %}"
          "{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}" + LLAMA3_END)
LLAMA31 = '''{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set opening = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set opening = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- opening }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- ''' + LLAMA3_LINE.replace("\n", "\\n") + ''' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}'''


def mistral(answer):
    return ("{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
            "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ " + answer
            + " }}{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}")


IM = ("<|im_start|>", "<|im_end|>")
S = ("<s>", "</s>")
L3 = ("<|begin_of_text|>", "<|eot_id|>")
# file: (name that Detect must give, template, (bos, eos))
TEMPLATES = {
    "chatml": ("chatml", chatml(), IM),
    "chatml_bos": ("chatml", chatml(bos=True), S),
    "chatml_default_system": ("chatml", chatml("You are a helpful assistant."), IM),
    "chatml_dotted": ("chatml", CHATML_DOTTED, IM),
    "smollm2": ("smollm2", chatml(SMOLLM2_SYSTEM), IM),
    "qwen3": ("qwen3", QWEN3, IM),
    "llama2": ("llama2", LLAMA2, S),
    "llama3": ("llama3", LLAMA3, L3),
    "llama31": ("llama3", LLAMA31, L3),
    "mistral": ("mistral", mistral("' ' + message['content'] + eos_token"), S),
    "mistral_no_blank": ("mistral", mistral("message['content'] + eos_token"), S),
    "mistral_blank_after": ("mistral", mistral("message['content'] + eos_token + ' '"), S),
}

U, A, Y = "user", "assistant", "system"
CONVERSATIONS = [
    [(U, "Which gate does the ferry leave from?")],
    [(U, "Which gate?"), (A, "Gate 4.")],
    [(Y, "Answer like a harbour master."), (U, "Which gate?"), (A, "Gate 4, by the crane."), (U, "When?")],
    [(U, "  Blanks around, and\na second line. \n"), (A, "\n kept or not \t")],
    [(Y, " Short. "), (U, "Größe?\u3000"), (A, "12 m, 日本 😀"), (U, "Und jetzt?"), (A, "Noch 12 m.")],
    [(U, "What is 2+3?"), (A, "<think>\ntwo and three\n</think>\n\n5"), (U, "And 4?"),
     (A, "<think>\nadd four\n</think>\n\n9")],
    [(U, "It's \"quoted\" {{ and braced }} <|im_end|>"), (A, "")],
]


def main():
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    for file, (name, template, (bos, eos)) in TEMPLATES.items():
        tokenizer.bos_token, tokenizer.eos_token = bos, eos
        cases = []
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for prompt in (False, True):
                try:
                    text = tokenizer.apply_chat_template(
                        messages, chat_template=template, tokenize=False, add_generation_prompt=prompt)
                except Exception:  # the template refuses the roles
                    text = None
                cases.append({"messages": messages, "add_generation_prompt": prompt, "text": text})
        out = {"name": name, "jinja": template, "bos": bos, "eos": eos, "cases": cases}
        pathlib.Path(__file__).with_name(file + ".json").write_text(
            json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
