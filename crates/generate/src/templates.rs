//! Chat templates by name, for models whose files carry none.

use rhetor_catalog::{About, Source};

/// A chat template that can be chosen by name.
#[derive(Debug)]
pub struct NamedTemplate {
    /// How it introduces itself.
    pub about: About,
    /// Jinja, as Hugging Face's `chat_template`.
    pub source: &'static str,
    /// Strings that end an answer, where the model has no token for it.
    pub stops: &'static [&'static str],
}

/// All of them.
pub const TEMPLATES: &[NamedTemplate] = &[
    template(
        "chatml",
        "<|im_start|>role, text, <|im_end|>: Qwen, SmolLM2, OpenHermes and many others",
        "OpenAI, ChatML",
        CHATML,
        &["<|im_end|>"],
    ),
    template(
        "llama2",
        "[INST] and <<SYS>>: LLaMA-2-chat, Code Llama",
        "facebookresearch/llama, generation.py",
        "{% if messages[0]['role'] == 'system' %}\
         {% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}\
         {% else %}{% set system = '' %}{% set turns = messages %}{% endif %}\
         {% for message in turns %}\
         {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('llama2 wants user and assistant in turns, the user first') }}{% endif %}\
         {% for tag in ['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>'] %}{% if tag in message['content'] %}\
         {{ raise_exception('llama2 refuses a message that contains ' + tag) }}{% endif %}{% endfor %}\
         {% if message['role'] == 'user' %}\
         {% set content = (system if loop.first else '') + message['content'] %}\
         {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
         {% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        &[],
    ),
    template(
        "llama3",
        "<|start_header_id|>role<|end_header_id|>, text, <|eot_id|>: Llama 3",
        "meta-llama/llama3, tokenizer.py",
        "{{ bos_token }}{% for message in messages %}\
         {{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'].strip() + \
         '<|eot_id|>' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        &["<|eot_id|>"],
    ),
    template(
        "vicuna",
        "USER: and ASSISTANT:: Vicuna 1.1 and 1.5",
        "lm-sys/FastChat, conversation.py, vicuna_v1.1",
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set turns = messages[1:] %}\
         {% else %}{{ 'A chat between a curious user and an artificial intelligence assistant. The assistant gives \
         helpful, detailed, and polite answers to the user\\'s questions.' }}{% set turns = messages %}{% endif %}\
         {{ ' ' }}{% for message in turns %}\
         {% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}\
         {% else %}{{ 'ASSISTANT: ' + message['content'] + '</s>' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        &["</s>", "USER:"],
    ),
    template(
        "zephyr",
        "<|user|>, a line break, text, </s>: Zephyr, StableLM 2",
        "huggingface/alignment-handbook",
        "{% for message in messages %}\
         {{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        &["</s>"],
    ),
    template(
        "mistral",
        "[INST], no space after </s>: Mistral-Instruct 0.2, Mixtral-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.2",
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}\
         {% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}\
         {{ bos_token }}{% for message in turns %}\
         {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('mistral wants user and assistant in turns, the user first') }}{% endif %}\
         {% if message['role'] == 'user' %}\
         {{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}\
         {% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}",
        &[],
    ),
    template(
        "mistral-v0.1",
        "[INST], a space after </s>: Mistral-Instruct 0.1",
        "mistralai/Mistral-7B-Instruct-v0.1",
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}\
         {% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}\
         {{ bos_token }}{% for message in turns %}\
         {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('mistral wants user and assistant in turns, the user first') }}{% endif %}\
         {% if message['role'] == 'user' %}\
         {{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}\
         {% else %}{{ ' ' + message['content'] + eos_token + ' ' }}{% endif %}{% endfor %}",
        &[],
    ),
    template(
        "solar",
        "### User: and ### Assistant:: SOLAR-Instruct",
        "upstage/SOLAR-10.7B-Instruct-v1.0",
        "{% for message in messages %}\
         {% if message['role'] == 'system' %}{{ '### System:\n' + message['content'] + '\n\n' }}\
         {% elif message['role'] == 'user' %}{{ '### User:\n' + message['content'] + '\n\n' }}\
         {% else %}{{ '### Assistant:\n' + message['content'] + '\n\n' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}",
        &["### User:"],
    ),
    template(
        "minigpt4",
        "###Human: and ###Assistant: , a picture as <Img><ImageHere></Img>: MiniGPT-4 on Vicuna",
        "Vision-CAIR/MiniGPT-4, conversation.py",
        "{% for message in messages %}\
         {% if message['role'] == 'system' %}{{ message['content'] }}\
         {% elif message['role'] == 'user' %}\
         {% if loop.first or messages[loop.index0 - 1]['role'] != 'assistant' %}{{ '###' }}{% endif %}\
         {{ 'Human: ' + message['content'] }}\
         {% else %}{{ '###Assistant: ' + message['content'] + '###' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ '###Assistant: ' }}{% endif %}",
        &["###"],
    ),
    template(
        "minigpt-v2",
        "[INST] before each turn of the user, a picture as <Img><ImageHere></Img>: MiniGPT-v2",
        "Vision-CAIR/MiniGPT-4, conversation.py",
        "{% for message in messages %}\
         {% if message['role'] == 'system' %}{{ message['content'] }}\
         {% elif message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}\
         {% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}",
        &[],
    ),
    template("orca2", "ChatML, as Orca 2 uses it", "microsoft/Orca-2-7b", CHATML, &["<|im_end|>"]),
    template(
        "falcon",
        "User: and Assistant:: Falcon-instruct",
        "lm-sys/FastChat, conversation.py, falcon",
        "{% for message in messages %}\
         {% if message['role'] == 'system' %}{{ message['content'] + '\n' }}\
         {% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n' }}\
         {% else %}{{ 'Assistant: ' + message['content'] + '\n' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        &["\nUser"],
    ),
    template(
        "phi2",
        "Instruct: and Output:: Phi-2's question and answer form",
        "microsoft/phi-2, model card",
        "{% for message in messages %}\
         {% if message['role'] == 'assistant' %}{{ 'Output: ' + message['content'] + '\n' }}\
         {% elif message['role'] == 'system' %}{{ message['content'] + '\n' }}\
         {% else %}{{ 'Instruct: ' + message['content'] + '\n' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ 'Output:' }}{% endif %}",
        &["\nInstruct:"],
    ),
    template(
        "phi2-chat",
        "Alice: and Bob:: Phi-2's chat form",
        "microsoft/phi-2, model card",
        "{% for message in messages %}\
         {% if message['role'] == 'assistant' %}{{ 'Bob: ' + message['content'] + '\n' }}\
         {% elif message['role'] == 'system' %}{{ message['content'] + '\n' }}\
         {% else %}{{ 'Alice: ' + message['content'] + '\n' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ 'Bob:' }}{% endif %}",
        &["\nAlice:"],
    ),
    template(
        "zero-shot",
        "### Human: and ### Assistant:: for models without chat training",
        "lm-sys/FastChat, conversation.py, zero_shot",
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set turns = messages[1:] %}\
         {% else %}{{ 'A chat between a curious human and an artificial intelligence assistant. The assistant gives \
         helpful, detailed, and polite answers to the human\\'s questions.' }}{% set turns = messages %}{% endif %}\
         {{ '\n### ' }}{% for message in turns %}\
         {{ ('Human: ' if message['role'] == 'user' else 'Assistant: ') + message['content'] + '\n### ' }}{% endfor %}\
         {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        &["\n### Human", "\n###"],
    ),
];

const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const fn template(
    name: &'static str,
    summary: &'static str,
    project: &'static str,
    source: &'static str,
    stops: &'static [&'static str],
) -> NamedTemplate {
    NamedTemplate {
        about: About { name, summary, source: Source::Project(project), options: &[] },
        source,
        stops,
    }
}
